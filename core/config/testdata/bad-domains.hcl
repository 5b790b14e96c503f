hostname   = "mx_1!.example.com"
domains    = ["example..com", "*.example.com"]
postmaster = "ann"
listener "mx" {
  address = ["127.0.0.1:2525"]
}

route "local" {
  domains = ["*.", "*example.com"]
  mx      = true
}
