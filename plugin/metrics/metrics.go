package metrics

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxValues bounds the values of a label that is no closed set here. Reasons
// are constants of this module; the bound only guards against one that is not.
const maxValues = 80

// other stands for values beyond the known ones.
const other = "other"

// Metrics holds the counters of one process. Its methods may be called
// concurrently.
type Metrics struct {
	registry *prometheus.Registry
	reasons  known

	stages       *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	running      *prometheus.GaugeVec
	calls        *prometheus.CounterVec
	journal      *prometheus.CounterVec
	journalError prometheus.Counter
	nudges       *prometheus.CounterVec
	watchdog     *prometheus.CounterVec
	logBytes     prometheus.Counter
}

// New returns Metrics that say which version of aphex runs.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(), reasons: known{limit: maxValues, seen: map[string]bool{}},
		stages:       counters("aphex_stages_total", "Stages that ended in this pod.", "stage", "phase", "reason"),
		running:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "aphex_stages_running", Help: "Stages that are executed now."}, []string{"stage"}),
		calls:        counters("aphex_calls_total", "Calls of Argo's agent by the kind of the answer.", "answer"),
		journal:      counters("aphex_journal_writes_total", "Attempts to write the journal of a run. All but those that were written are made again.", "result"),
		journalError: prometheus.NewCounter(prometheus.CounterOpts{Name: "aphex_journal_failures_total", Help: "Changes of a journal that were given up."}),
		nudges:       counters("aphex_nudges_total", "Patches of the own Workflow that make the controller look.", "result"),
		watchdog:     counters("aphex_watchdog_patches_total", "Patches of the task set that hand in a lost result or remove a stale one.", "result"),
		logBytes:     prometheus.NewCounter(prometheus.CounterOpts{Name: "aphex_log_bytes_total", Help: "Bytes of stage logs that were uploaded."}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "aphex_stage_duration_seconds", Help: "Time from a stage's first start, in whichever pod, to its end.",
			// From a stage that has nothing to do to the default timeout of one hour.
			Buckets: []float64{0.5, 1, 5, 15, 30, 60, 120, 300, 600, 1200, 3600},
		}, []string{"stage", "phase"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "aphex_info", Help: "The version that runs; always 1.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.registry.MustRegister(m.stages, m.running, m.calls, m.journal, m.journalError, m.nudges, m.watchdog, m.logBytes, m.durations, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Page is the handler of the page for Prometheus.
func (m *Metrics) Page() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// known remembers the values of a label and replaces those beyond its limit.
type known struct {
	limit int

	mu   sync.Mutex
	seen map[string]bool
}

func (k *known) value(v string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.seen[v] {
		if len(k.seen) >= k.limit {
			return other
		}
		k.seen[v] = true
	}
	return v
}
