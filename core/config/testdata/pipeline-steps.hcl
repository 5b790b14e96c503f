listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.in
}
plugin "spam" {
  source  = "builtin:filter"
  timeout = "2m"
}
pipeline "in" {
  on "connect" {
    use      = [plugin.spam]
    on_error = "quarantine"
  }
  on "rcpt" {
    use         = [plugin.spam]
    on_overload = "acept"
    allow       = ["add_headers", "body"]
  }
  on "message" {
    use      = [plugin.spam]
    parallel = "yes"
  }
}
route "internet" {
  mx = true
}
