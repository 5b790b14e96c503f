hostname = "mx.example.com
domains = ["example.com"]
listener "mx" {
  address = ["127.0.0.1:2525"
}
