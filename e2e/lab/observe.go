package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

// WatchWorkflows calls fn with the name and the annotations of every Workflow
// of the tenant's namespace at each of its changes, until ctx ends or the watch
// is lost.
func (l *Lab) WatchWorkflows(ctx context.Context, fn func(name string, annotations map[string]string)) error {
	client := l.Dynamic.Resource(workflows).Namespace(l.Cluster.Namespace())
	list, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list workflows: %w", err)
	}
	for version := list.GetResourceVersion(); ; {
		events, err := client.Watch(ctx, metav1.ListOptions{ResourceVersion: version})
		if err != nil {
			return fmt.Errorf("watch workflows: %w", err)
		}
		for event := range events.ResultChan() {
			obj, ok := event.Object.(*unstructured.Unstructured)
			if event.Type == watch.Error || !ok {
				events.Stop()
				return fmt.Errorf("watch workflows: %v", event.Object)
			}
			version = obj.GetResourceVersion()
			fn(obj.GetName(), obj.GetAnnotations())
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// Memory returns the resident memory of every running container in bytes, by
// namespace/pod/container, as the kubelets have measured it last.
func (l *Lab) Memory(ctx context.Context) (map[string]int64, error) {
	nodes, err := l.Kubectl(ctx, nil, "get", "nodes", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(nodes), &list); err != nil {
		return nil, fmt.Errorf("decode the nodes: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("the cluster has no nodes")
	}
	used := map[string]int64{}
	for _, node := range list.Items {
		text, err := l.Kubectl(ctx, nil, "get", "--raw", "/api/v1/nodes/"+node.Metadata.Name+"/proxy/stats/summary")
		if err != nil {
			return nil, err
		}
		if err := addMemory(used, text); err != nil {
			return nil, err
		}
	}
	return used, nil
}

// addMemory reads a kubelet's summary.
func addMemory(used map[string]int64, summary string) error {
	var stats struct {
		Pods []struct {
			PodRef struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"podRef"`
			Containers []struct {
				Name   string `json:"name"`
				Memory struct {
					RSSBytes int64 `json:"rssBytes"`
				} `json:"memory"`
			} `json:"containers"`
		} `json:"pods"`
	}
	if err := json.Unmarshal([]byte(summary), &stats); err != nil {
		return fmt.Errorf("decode the kubelet's summary: %w", err)
	}
	for i := range stats.Pods {
		pod := &stats.Pods[i]
		for _, c := range pod.Containers {
			used[pod.PodRef.Namespace+"/"+pod.PodRef.Name+"/"+c.Name] = c.Memory.RSSBytes
		}
	}
	return nil
}
