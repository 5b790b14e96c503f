listener "submission" {
  address       = ["127.0.0.1:2587"]
  auth          = plugin.users
  insecure_auth = true
}
plugin "users" {
  source   = "builtin:users"
  on_error = "accept"
  config { file = "users" }
}
route "internet" {
  mx = true
}
