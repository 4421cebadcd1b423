package diff

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// values draws JSON as templates have it.
func values() *rapid.Generator[any] { return valuesOf(3) }

func valuesOf(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kind := rapid.IntRange(0, 9).Draw(t, "kind")
		if depth == 0 {
			kind %= 5
		}
		switch kind {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return json.Number(rapid.SampledFrom([]string{"0", "1", "1.0", "-7"}).Draw(t, "number"))
		case 3, 4:
			return rapid.SampledFrom([]string{"", "a", "b", "é", "?", "${A}"}).Draw(t, "text")
		case 5, 6:
			return rapid.SliceOfN(valuesOf(depth-1), 0, 4).Draw(t, "list")
		case 7:
			return map[string]any{rapid.SampledFrom([]string{"Ref", "Fn::Sub", "Fn::Join"}).Draw(t, "function"): valuesOf(depth-1).Draw(t, "argument")}
		}
		return rapid.MapOfN(rapid.SampledFrom([]string{"A", "B", "c.d", "", "[0]", `"`}), valuesOf(depth-1), 0, 4).Draw(t, "object")
	})
}

// near draws a value like another one: often most of it is the same.
func near(value any) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		if rapid.IntRange(0, 4).Draw(t, "other") == 0 {
			return valuesOf(1).Draw(t, "replaced")
		}
		switch v := value.(type) {
		case map[string]any:
			out := map[string]any{}
			for _, key := range slices.Sorted(maps.Keys(v)) {
				if rapid.IntRange(0, 5).Draw(t, "dropped") > 0 {
					out[key] = near(v[key]).Draw(t, "entry")
				}
			}
			return out
		case []any:
			out := []any{}
			for _, entry := range v {
				switch rapid.IntRange(0, 6).Draw(t, "edit") {
				case 0:
				case 1:
					out = append(out, valuesOf(1).Draw(t, "inserted"), entry)
				default:
					out = append(out, near(entry).Draw(t, "entry"))
				}
			}
			return out
		}
		return value
	})
}

func leavesOf(old, now any) []leaf {
	w := &walker{}
	w.walk(nil, old, now)
	return w.leaves
}

func TestWalk_NothingDiffersFromItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := values().Draw(t, "value")
		require.Empty(t, leavesOf(value, clone(value)))
	})
}

// clone copies a value through JSON, which brings keys into another order.
func clone(value any) any {
	decoder := json.NewDecoder(strings.NewReader(string(encode(value))))
	decoder.UseNumber()
	var out any
	if err := decoder.Decode(&out); err != nil {
		panic(err)
	}
	return out
}

// Every difference is reported, once, with what is there: taking what is
// reported away from both sides leaves two equal ones.
func TestWalk_EveryDifferenceOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		old := values().Draw(t, "old")
		now := near(old).Draw(t, "new")
		leaves := leavesOf(old, now)
		require.Equal(t, !reflect.DeepEqual(old, now), len(leaves) > 0)
		seen := map[string]bool{}
		a, b := clone(old), clone(now)
		for _, l := range slices.Backward(leaves) {
			path := pathOf(l.steps)
			for side, present := range map[string]bool{"old": l.hasOld, "new": l.hasNew} {
				require.False(t, present && seen[side+path], "%s is reported twice", path)
				seen[side+path] = seen[side+path] || present
			}
			require.True(t, l.hasOld || l.hasNew)
			if l.hasOld && l.hasNew {
				require.NotEqual(t, l.old, l.new, path)
			}
			if l.hasOld {
				require.Equal(t, clone(l.old), at(t, a, l.steps), "%s: old", path)
				a = take(a, l.steps, l.hasNew)
			}
			if l.hasNew {
				require.Equal(t, clone(l.new), at(t, b, l.steps), "%s: new", path)
				b = take(b, l.steps, l.hasOld)
			}
		}
		require.Equal(t, a, b, "something differs that is not reported")
	})
}

// The other way round the same differs, with the sides swapped.
func TestWalk_IsSymmetric(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		old := values().Draw(t, "old")
		now := near(old).Draw(t, "new")
		forth, back := leavesOf(old, now), leavesOf(now, old)
		for i := range back {
			back[i].old, back[i].new, back[i].hasOld, back[i].hasNew = back[i].new, back[i].old, back[i].hasNew, back[i].hasOld
		}
		require.Equal(t, forth, back)
	})
}

func at(t *rapid.T, value any, steps []step) any {
	for _, s := range steps {
		if s.isKey {
			object, ok := value.(map[string]any)
			require.True(t, ok)
			entry, ok := object[s.key]
			require.True(t, ok)
			value = entry
			continue
		}
		list, ok := value.([]any)
		require.True(t, ok)
		require.Less(t, s.position, len(list))
		value = list[s.position]
	}
	return value
}

// take takes the value at a path away, or puts a mark in its place.
func take(value any, steps []step, mark bool) any {
	if len(steps) == 0 {
		return "MARK"
	}
	s, rest := steps[0], steps[1:]
	if s.isKey {
		object := value.(map[string]any)
		if len(rest) == 0 && !mark {
			delete(object, s.key)
			return object
		}
		object[s.key] = take(object[s.key], rest, mark)
		return object
	}
	list := value.([]any)
	if len(rest) == 0 && !mark {
		return slices.Delete(list, s.position, s.position+1)
	}
	list[s.position] = take(list[s.position], rest, mark)
	return list
}

// templates draws a template around values.
func templates() *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		out := map[string]any{}
		for _, section := range []string{"Resources", "Outputs", "Parameters", "Conditions", "Mappings", "Rules", "Description"} {
			if section == "Description" {
				out[section] = rapid.String().Draw(t, "description")
				continue
			}
			out[section] = rapid.MapOfN(rapid.SampledFrom([]string{"One", "Two", "Three"}), values(), 0, 3).Draw(t, section)
		}
		return out
	})
}

func TestCompare_NothingDiffersFromItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		template := templates().Draw(t, "template")
		copied, ok := clone(template).(map[string]any)
		require.True(t, ok)
		tags := map[string]string{"team": "shop"}
		got := Compare(Input{Old: Side{Template: template, Tags: tags}, New: Side{Template: copied, Tags: maps.Clone(tags)}})
		require.Equal(t, Result{}, got)
	})
}

func TestCompare_EveryEntryThatDiffersOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		old, now := templates().Draw(t, "old"), templates().Draw(t, "new")
		got := Compare(Input{Old: Side{Template: old}, New: Side{Template: now}})
		found := map[string]Action{}
		for _, c := range got.Changes {
			key := string(c.Kind) + " " + c.ID
			require.NotContains(t, found, key)
			found[key] = c.Action
		}
		for kind, name := range sections() {
			before, after := entries(old, name), entries(now, name)
			for _, id := range []string{"One", "Two", "Three"} {
				a, was := before[id]
				b, is := after[id]
				want, differs := Modify, !reflect.DeepEqual(a, b)
				switch {
				case was && !is:
					want, differs = Remove, true
				case is && !was:
					want, differs = Add, true
				case !is:
					differs = false
				}
				got, reported := found[string(kind)+" "+id]
				require.Equal(t, differs, reported, "%s %s", kind, id)
				if differs {
					require.Equal(t, want, got)
				}
			}
		}
	})
}

// Whatever a parameter with NoEcho or a property with the name of a secret
// holds, it is nowhere in the report.
func TestCompare_SecretsAreNotInTheReport(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const one, two = "s3cr3t-one", "s3cr3t-two"
		secret := func(value, name string) map[string]any {
			return map[string]any{
				"Parameters": map[string]any{"Pass": map[string]any{"Type": "String", "NoEcho": rapid.SampledFrom([]any{true, "true"}).Draw(t, "noecho"), "Default": value}},
				"Resources": map[string]any{"Db": map[string]any{"Type": "AWS::RDS::DBInstance", "Properties": map[string]any{
					name:          rapid.SampledFrom([]any{value, map[string]any{"Fn::Join": []any{"", []any{value, "x"}}}}).Draw(t, "form"),
					"Environment": map[string]any{"Variables": map[string]any{"API_TOKEN": value}},
				}}},
			}
		}
		name := rapid.SampledFrom([]string{"MasterUserPassword", "SecretString", "AuthToken", "client_secret"}).Draw(t, "name")
		sides := []map[string]any{nil, secret(one, name), secret(two, name)}
		old := rapid.SampledFrom(sides).Draw(t, "old")
		now := rapid.SampledFrom(sides[1:]).Draw(t, "new")
		got := Compare(Input{Old: Side{Template: old, Values: map[string]string{"Pass": one}}, New: Side{Template: now}})
		report := New(Templates, []Stack{{Name: "s", Changes: got.Changes, Security: got.Security, Notes: got.Notes}})
		for _, text := range renderings(t, report) {
			require.NotContains(t, text, "s3cr3t")
		}
		if !reflect.DeepEqual(old, now) {
			require.NotEmpty(t, got.Changes, "a change of a secret is shown as one")
		}
	})
}

// renderings are a report as text, Markdown and JSON.
func renderings(t require.TestingT, report Report) map[string]string {
	var table, markdown strings.Builder
	require.NoError(t, WriteTable(&table, report))
	require.NoError(t, WriteMarkdown(&markdown, report))
	document, err := json.MarshalIndent(report, "", "  ")
	require.NoError(t, err)
	return map[string]string{"txt": table.String(), "md": markdown.String(), "json": string(document) + "\n"}
}
