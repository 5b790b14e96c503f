listener "mx" {
  address = ["127.0.0.1:2525"]
}
route "internet" {
  mx = true
}

route "later" {
  domains   = ["example.com"]
  smarthost = "inside.example.com:25"
}
