queue {
}
