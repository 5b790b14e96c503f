listener "mx" {
  address  = ["127.0.0.1:2525"]
  protocol = "esmtp"
  bare_lf  = "normalise"
}
plugin "spam" {
  source   = "builtin:filter"
  on_error = "tempfial"
}
pipeline "in" {
  on "data" {
    use = [plugin.spam]
  }
}
route "internet" {
  mx  = true
  tls = "yes"
}
