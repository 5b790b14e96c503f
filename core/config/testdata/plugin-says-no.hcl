listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.in
}
plugin "picky" {
  source = "builtin:picky"
  config {
    words = ["good", "bad"]
    token = env("SECRET")
    rule {
      name = "a"
    }
    rule {
      name = "b"
    }
  }
}
pipeline "in" {
  on "rcpt" {
    use = [plugin.picky]
  }
}
route "internet" {
  mx = true
}
