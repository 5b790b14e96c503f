plugin "users" {
  source = "builtin:users"
  config { file = "users" }
}
listener "mx" {
  address = [plugin.users]
}
route "internet" {
  mx = true
}
