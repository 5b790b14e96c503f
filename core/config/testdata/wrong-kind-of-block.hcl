tls "public" {
  cert_file = "tls/cert.pem"
  key_file  = "tls/key.pem"
}
listener "mx" {
  address = ["127.0.0.1:2525"]
  tls     = tls.public
  auth    = tls.public
}
route "internet" {
  mx = true
}
