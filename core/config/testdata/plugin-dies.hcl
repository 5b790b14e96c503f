listener "mx" {
  address = ["127.0.0.1:2525"]
}

plugin "broken" {
  source = "builtin:broken"
}
route "internet" {
  mx = true
}
