listener "mx" {
  address = ["127.0.0.1:2525"]
}

route "partner" {
  smarthost = "smtp.partner.example:587"
  tls       = "verify"
  user      = "mx1"
  password  = env("PARTNER_SMTP_PASSWORD")
}
route "two" {
  domains   = ["two.example"]
  smarthost = file("no-such-file")
  user      = credential("no-such-credential")
  password  = credential("../../etc/passwd")
}
