domains = ["example.com", "example.net", "sub.example.org"]
listener "mx" {
  address = ["127.0.0.1:2525"]
}

route "local" {
  domains   = ["example.com", "*.example.org"]
  smarthost = "inside.example.com:25"
}
