listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline
}
pipeline "p" {}
route "internet" {
  domains = domains
  mx      = true
  store   = plugin.a.b
}
plugin "a" {
  source = "builtin:maildir"
  config { path = "x" }
}
