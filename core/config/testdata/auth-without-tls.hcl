listener "submission" {
  address = ["0.0.0.0:2587"]
  auth    = plugin.users
}
listener "open" {
  address       = ["127.0.0.1:2588", "[::]:2588"]
  auth          = plugin.users
  insecure_auth = true
}
listener "implicit" {
  address  = ["127.0.0.1:2465"]
  implicit = true
}
listener "idle" {
  address       = ["127.0.0.1:2466"]
  insecure_auth = true
}
listener "plain" {
  address = [":2467"]
}
plugin "users" {
  source = "builtin:users"
  config { file = "users" }
}
route "internet" {
  mx = true
}
