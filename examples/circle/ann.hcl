address          = "ann@first.test"
name             = "앤"
imap             = "127.0.0.1:13143"
submit           = "127.0.0.1:13587"
password_command = "cat ann.password" # a password manager's command, in real life
