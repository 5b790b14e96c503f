listener {
  address = ["127.0.0.1:1"]
}
listener "a" "b" {
  address = ["127.0.0.1:2"]
}
listener "my mx" {
  address = ["127.0.0.1:3"]
}
queue "main" {
}
route "internet" {
  mx = true
}
