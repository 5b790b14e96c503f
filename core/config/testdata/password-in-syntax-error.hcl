listener "mx" {
  address = ["127.0.0.1:2525"]
}

route "relay" {
  smarthost = "relay.example:587"
  password = "hunter2" oops
}
