hostnme = "mx.example.com"
listener "mx" {
  adress  = ["127.0.0.1:2525"]
  address = ["127.0.0.1:2525"]
  colour  = "red"
}
route "internet" {
  mx = true
}
