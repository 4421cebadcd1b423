# Tells the harness that a command begins or ends; it may kill before it answers.
set -e
if [ -n "$CHAOS_MARKS" ]; then
  curl -fsS --max-time 60 -X POST "$CHAOS_MARKS/$1/$2/$3"
fi
