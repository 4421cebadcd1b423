// Package cluster brings up a Kubernetes cluster with Argo Workflows for the
// end-to-end tests and the demonstration, and takes it down again without a
// trace.
//
// There are three providers. "local" runs one node on this machine, from Go
// modules (package toolcache) and the distribution's containerd; it needs
// root, but neither a container engine nor a registry. "kind" uses the kind
// command and a Docker engine. "existing" uses a cluster that a kubeconfig
// names. Each has the same stock Argo Workflows controller, cluster-wide, with
// executor plugins switched on, in the namespace "argo"; the tenants have
// namespaces of their own.
//
// What Up makes is written down before it is made, in the state directory, so
// that another process can Attach to the cluster or take it down, and so that
// the next Up removes what a killed process left behind.
//
// The local provider keeps everything apart from the machine: the components
// run in a network namespace of the cluster's own, joined to the machine by
// one virtual link, so that any number of clusters can run side by side and
// no port, route or packet filter rule of the machine is touched. Its pods
// reach one another, Services and this machine, and nothing beyond. There is
// no DNS for Services.
package cluster
