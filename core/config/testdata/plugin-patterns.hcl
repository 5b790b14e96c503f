listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.inbound
}
plugin "patterns" {
  source = "/usr/lib/mta/plugins/typed"
  sha256 = "8c1b0c8e3f5a7d92b64e0f3a1d5c7e9b2f4a6c8e0d1b3f5a7c9e1d3b5f7a9c0e"
  config {
    pattern  = "a(b"
    patterns = ["good", "[z-a]"]
  }
}
pipeline "inbound" {
  on "rcpt" {
    use = [plugin.patterns]
  }
}
route "internet" {
  mx = true
}
