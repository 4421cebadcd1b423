# did WHAT tells the test that something runs. The answer may take its time, and
# may be a failure, which is then the command's.
did() {
  echo "$1 begins"
  curl -fsS --max-time 600 "$(cat ledger-url)/$1"
  echo "$1 is done"
}
