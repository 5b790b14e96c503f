domains = ["example.com"]
listener "mx" {
  address = ["127.0.0.1:2525"]
}
plugin "ways" {
  source   = "builtin:router"
  on_error = "accept"
}
route "local" {
  domains = domains
  lmtp    = "127.0.0.1:24"
}
route "out" {
  router = plugin.ways
}
