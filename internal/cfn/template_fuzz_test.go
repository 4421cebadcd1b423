package cfn

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

var beyondASCII = regexp.MustCompile(`[^\x00-\x7f]`)

// lose does to a document what GetTemplate does; ok is false if two keys fall
// together.
func lose(value any, with string) (lost any, ok bool) {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, item := range v {
			if out[beyondASCII.ReplaceAllString(key, with)], ok = lose(item, with); !ok {
				return nil, false
			}
		}
		return out, len(out) == len(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			if out[i], ok = lose(v[i], with); !ok {
				return nil, false
			}
		}
		return out, true
	case string:
		return beyondASCII.ReplaceAllString(v, with), true
	}
	return value, true
}

// FuzzTemplate: a template that is accepted keeps its meaning, and is compared
// with whatever CloudFormation returns in no time.
func FuzzTemplate(f *testing.F) {
	shop, err := os.ReadFile("../assembly/testdata/shop/shop-data.template.json")
	require.NoError(f, err)
	f.Add(shop, shop)
	ours := `{"Parameters":{"B":{"Type":"AWS::SSM::Parameter::Value<String>","Description":"[cdk:skip]"}},"Resources":{"A":{"Type":"T","Properties":{"N":1.50,"S":"größe","L":["a",true,null]}}}}`
	f.Add([]byte(ours), []byte(strings.NewReplacer("ö", "??", "ß", "?").Replace(ours)))
	f.Add([]byte("Resources:\n  A: &a\n    Type: T\n  B: *a\n"), []byte("Resources:\n  A: !Ref X\n"))
	f.Add([]byte(`{"`+strings.Repeat("é", 40)+`":"`+strings.Repeat("語", 60)+`"}`), []byte(`{"`+strings.Repeat("?", 70)+`":"`+strings.Repeat("?", 100)+`x"}`))
	f.Add([]byte(`{"a":1}{`), []byte("null"))
	f.Add([]byte(`{"a":`+strings.Repeat("[", 300)), []byte("a: .nan\n1: {2: 3}\n"))
	f.Fuzz(func(t *testing.T, data, live []byte) {
		bounded.Here(t)
		own, err := parseTemplate(data)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		again, err := parseTemplate(own.canonical)
		require.NoError(t, err)
		require.Equal(t, own.document, again.document)
		require.Equal(t, own.canonical, again.canonical)
		require.Equal(t, equal, own.compare(data))
		verdict := own.compare(live)
		require.Equal(t, verdict, own.compare(live), "a verdict is no matter of chance")
		if other, err := parseTemplate(live); err == nil && verdict == equal {
			require.Equal(t, equal, other.compare(data))
		}
		for _, with := range []string{"?", "??"} {
			if lost, ok := lose(own.document, with); ok {
				text, err := json.Marshal(lost)
				require.NoError(t, err)
				require.NotEqual(t, different, own.compare(text), "lost characters change nothing")
			}
		}
		p := resolveParameters(own.declared, nil, nil)
		require.True(t, slices.IsSorted(p.missing))
	})
}
