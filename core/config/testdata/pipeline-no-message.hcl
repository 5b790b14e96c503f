listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.in
}
plugin "spam" {
  source = "builtin:early"
}
pipeline "in" {
  on "connect" {
    use        = [plugin.spam]
    on_error   = "quarantine"
    on_timeout = "accept"
  }
  on "helo" {
    use         = [plugin.spam]
    on_overload = "quarantine"
  }
}
route "internet" {
  mx = true
}
