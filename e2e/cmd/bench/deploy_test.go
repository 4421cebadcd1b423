package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReport_JudgesTimesAndCalls(t *testing.T) {
	t.Parallel()
	side := func(seconds float64, calls map[string]int) []deployed {
		return []deployed{{time.Duration(seconds * float64(time.Second)), calls}}
	}
	cli := map[string]int{"cloudformation DescribeStacks": 10, "cloudformation DescribeStackEvents": 3, "s3 PutObject": 2}
	c := deployCase{name: "first", aim: 0.5}
	for _, row := range []struct {
		name  string
		ours  []deployed
		wrong string
	}{
		{"fewer and faster", side(1, map[string]int{"cloudformation DescribeStacks": 2, "s3 PutObject": 2}), ""},
		{"slower", side(6, map[string]int{"s3 PutObject": 2}), "first: the aim was missed"},
		{"one call more", side(1, map[string]int{"s3 PutObject": 3}), "more calls than the command line: s3 PutObject 3 instead of 2"},
		{"identity", side(1, map[string]int{"sts GetCallerIdentity": 3}), ""},
		{"events instead of stacks", side(1, map[string]int{"cloudformation DescribeStackEvents": 13}), ""},
		{"more looks altogether", side(1, map[string]int{"cloudformation DescribeStackEvents": 14}), "DescribeStackEvents 14 instead of 3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			b := &bench{out: &out}
			err := b.report(c, map[string][]deployed{sideCLI: side(10, cli), sideAphex: row.ours})
			if row.wrong == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, row.wrong)
		})
	}
}
