tls "public" {
}
listener "mx" {
  tls = tls.public
}
plugin "store" {
}
route "local" {
  store = plugin.store
}
