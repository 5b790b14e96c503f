listener "mx" {
  address = ["127.0.0.1:2525"]
}
plugin "ways" {
  source = "builtin:router"
}
route "out" {
  router = plugin.ways
}
queue {
  destination "google" {
    mx          = ["*.google.com"]
    connections = 3
  }
}
