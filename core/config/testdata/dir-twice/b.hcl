hostname = "b.example"
listener "mx" {
  address = ["127.0.0.1:2526"]
}
queue {
  jitter = 2
}
