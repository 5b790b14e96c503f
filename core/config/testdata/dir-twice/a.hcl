hostname = "a.example"
listener "mx" {
  address = ["127.0.0.1:2525"]
}
route "internet" {
  mx = true
}
