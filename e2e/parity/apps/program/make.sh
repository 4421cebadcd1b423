#!/bin/sh
file=$(mktemp)
printf "made by a program, long enough" > "$file"
echo "$file"
