# The smallest server: a relay for this machine.
hostname = "mx.example.com"
listener "mx" {
  address = ["127.0.0.1:25"]
}
route "internet" {
  mx = true
}
