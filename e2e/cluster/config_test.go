package cluster

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

type machineWith bool

func (m machineWith) kindWorks(context.Context) bool { return bool(m) }

func TestChoose(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		config Config
		kind   bool
		want   string
	}{
		{"nothing there", Config{}, false, ProviderLocal},
		{"kind works", Config{}, true, ProviderKind},
		{"a kubeconfig wins over kind", Config{KubeconfigFile: "k"}, true, ProviderExisting},
		{"a kubeconfig alone", Config{KubeconfigFile: "k"}, false, ProviderExisting},
		{"the named one wins over kind", Config{Provider: ProviderLocal}, true, ProviderLocal},
		{"the named one wins over a kubeconfig", Config{Provider: ProviderLocal, KubeconfigFile: "k"}, false, ProviderLocal},
		{"kind by name", Config{Provider: ProviderKind}, false, ProviderKind},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := choose(t.Context(), tt.config, machineWith(tt.kind))
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
	_, err := choose(t.Context(), Config{Provider: "minikube"}, machineWith(false))
	require.ErrorContains(t, err, `"minikube" is none; set APHEX_CLUSTER to local, kind, existing`)
}

func TestWithDefaults_RefusesTheControllersNamespace(t *testing.T) {
	t.Parallel()
	_, err := Config{Dir: t.TempDir(), Namespace: ControllerNamespace}.withDefaults()
	require.ErrorContains(t, err, "controller's own")
	c, err := Config{Dir: "relative"}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, DefaultNamespace, c.Namespace)
	require.True(t, len(c.Dir) > 0 && c.Dir[0] == '/')
}

func TestFree(t *testing.T) {
	t.Parallel()
	parse := func(s string) *net.IPNet {
		ip, network, err := net.ParseCIDR(s)
		require.NoError(t, err)
		return &net.IPNet{IP: ip, Mask: network.Mask}
	}
	used := []*net.IPNet{parse("10.244.0.1/24"), parse("10.244.3.7/32"), parse("10.245.0.0/16")}
	require.False(t, free("10.244.0.0/24", used))
	require.True(t, free("10.244.1.0/24", used))
	require.False(t, free("10.244.3.0/24", used))
	require.False(t, free("10.245.9.0/24", used))
	require.False(t, free("10.244.1.0/24", append(used, parse("10.0.0.1/8"))))
}

func TestMissingPackages_NamesEachOnce(t *testing.T) {
	t.Parallel()
	no, yes := func() bool { return false }, func() bool { return true }
	require.Equal(t, []string{"a", "c"}, missingPackages([]requirement{{"a", no}, {"a", no}, {"b", yes}, {"c", no}}))
}

func TestFirstIPv4(t *testing.T) {
	t.Parallel()
	got, err := firstIPv4("fc00:f853:ccd:e793::1\n172.18.0.1\n")
	require.NoError(t, err)
	require.Equal(t, "172.18.0.1", got)
	_, err = firstIPv4("fc00::1")
	require.ErrorContains(t, err, "no IPv4 gateway")
}
