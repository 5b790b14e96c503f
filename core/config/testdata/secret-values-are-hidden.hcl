hostname = env("SECRET")
domains  = [env("SECRET"), "example.com"]
listener "mx" {
  address  = [env("SECRET")]
  protocol = env("SECRET")
}
route "relay" {
  smarthost = "relay.example:587"
  user      = "u"
  pasword   = "hunter2"
}
route "two" {
  smarthost = file(env("SECRET"))
  password  = ["hunter2"]
}
admin {
  socket = "${env("SECRET")}\n"
}
