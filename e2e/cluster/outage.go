package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Component is a part of the cluster that can be taken away for a while.
type Component string

// The components that can be.
const (
	APIServer Component = "kube-apiserver"
	Kubelet   Component = "kubelet"
)

// Without kills a component, calls during, and brings the component back, also
// after an error or the end of ctx. It returns once the API server is ready.
//
// Error: that of during; a provider other than local; a cluster that another
// process has brought up.
func (c *Cluster) Without(ctx context.Context, part Component, during func(context.Context) error) error {
	l, ok := c.provider.(*local)
	if !ok {
		return fmt.Errorf("the %s provider cannot take %s away; set APHEX_CLUSTER to %s", c.state.Provider, part, ProviderLocal)
	}
	return l.without(ctx, part, during)
}

func (l *local) without(ctx context.Context, part Component, during func(context.Context) error) error {
	found, err := l.remove(part)
	if err != nil {
		return err
	}
	if err := stop(ctx, []process{found.self}); err != nil {
		return fmt.Errorf("stop %s: %w", part, err)
	}
	failed := during(ctx)
	if err := l.launch(found.argv); err != nil {
		return errors.Join(failed, fmt.Errorf("start %s again: %w", part, err))
	}
	return errors.Join(failed, l.awaitAPIServer(context.WithoutCancel(ctx)))
}

// remove takes a component from the list of those that have to live.
func (l *local) remove(part Component) (*component, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.started, func(c *component) bool { return c.name == string(part) })
	if i < 0 {
		return nil, fmt.Errorf("%s was not started by this process", part)
	}
	found := l.started[i]
	l.started = slices.Delete(l.started, i, i+1)
	return found, nil
}
