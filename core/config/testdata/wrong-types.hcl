hostname = ["mx.example.com"]
domains  = "example.com"
networks = ["10.0.0.1/8", "10.0.0.300", 7]
listener "mx" {
  address  = ["127.0.0.1:2525"]
  implicit = "yes"
  limits {
    connections = "20"
    recipients  = 1.5
  }
}
queue {
  jitter = true
  retry  = [5, "5m"]
}
route "internet" {
  mx = true
}
