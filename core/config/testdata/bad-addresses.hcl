listener "mx" {
  address = ["mx.example.com:25", "127.0.0.1", "127.0.0.1:smtp", "[::1]:2525"]
}
route "relay" {
  smarthost = "smtp.partner.example"
}
route "lmtp" {
  domains = ["a.example"]
  lmtp    = ["unix:", "host:0"]
}
route "own" {
  domains = ["b.example"]
  mx      = true
  source  = "::ffff:192.0.2.1"
}
dns {
  servers = ["resolver.example"]
}
