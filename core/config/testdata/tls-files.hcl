tls "missing" {
  cert_file = "tls/no-such.pem"
  key_file  = "tls/key.pem"
}
tls "other" {
  cert_file = "tls/cert.pem"
  key_file  = "tls/other-key.pem"
}
tls "expired" {
  cert_file = "tls/expired.pem"
  key_file  = "tls/key.pem"
}
listener "a" {
  address = ["127.0.0.1:1001"]
  tls     = tls.missing
}
listener "b" {
  address = ["127.0.0.1:1002"]
  tls     = tls.other
}
listener "c" {
  address = ["127.0.0.1:1003"]
  tls     = tls.expired
}
route "internet" {
  mx = true
}
