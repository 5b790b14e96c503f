listener "mx" {
  address = ["127.0.0.1:2525"]
}

route "partner" {
  smarthost = "smtp.partner.example:587"
  tls       = "verify"
  user      = "mx1"
  password  = getenv("PARTNER_SMTP_PASSWORD")
}
route "b" {
  smarthost = env()
}
