listener "mx" {
  address = ["127.0.0.1:2525", "[::1]:2525"]
}
listener "other" {
  address = ["127.0.0.1:2526", "127.0.0.1:2525"]
}
listener "all" {
  address = [":2526"]
}
listener "fine" {
  address = ["0.0.0.0:2530", "[::]:2530"]
}
admin {
  listen = "localhost:2530"
}
route "internet" {
  mx = true
}
