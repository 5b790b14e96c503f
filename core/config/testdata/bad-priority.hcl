hostname = "mx1.example.com"
domains  = ["example.com"]

listener "mx" {
  address = [":25"]
}

queue {
  priority "too-much" {
    when  = sender.domain == "example.com"
    level = 10
  }
  priority "of-whom" {
    level = -10
  }
  priority "wrong" {
    when  = rcpt.domain == "example.com"
    level = 1.5
  }
}

route "internet" {
  mx = true
}
