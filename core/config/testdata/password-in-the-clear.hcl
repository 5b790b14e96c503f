listener "mx" {
  address = ["127.0.0.1:2525"]
}

route "partner" {
  domains   = ["partner.example"]
  smarthost = "smtp.partner.example:587"
  user      = "mx1"
  password  = env("SECRET")
}
route "local" {
  domains   = ["local.example"]
  smarthost = "127.0.0.1:587"
  user      = "mx1"
  password  = env("SECRET")
}
route "half" {
  smarthost = "smtp.partner.example:587"
  tls       = "verify"
  user      = "mx1"
}
