listener "mx" {
  address = ["127.0.0.1:2525"]
}

plugin "users" {
  source = "builtin:users"
  config { file = "users" }
  config { file = "users" }
}
route "internet" {
  mx = true
}
