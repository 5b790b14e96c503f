listener "mx" {
  address = ["127.0.0.1:2525"]
}

plugin "spam" {
  source = "builtin:filter"
}
pipeline "inbound" {
}
tls "public" {
  cert_file = "tls/cert.pem"
  key_file  = "tls/key.pem"
}
route "internet" {
  mx = true
}
