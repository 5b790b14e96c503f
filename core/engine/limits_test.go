package engine

import (
	"reflect"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/schedule"
)

// TestDestinationLimits: what mta.hcl says of a destination comes to the schedule.
func TestDestinationLimits(t *testing.T) {
	cfg := &config.Config{Queue: config.Queue{Connections: 7, Destinations: []*config.Destination{
		{Name: "big", MX: []string{"*.big.test"}, Connections: 3, Rate: config.Rate{Count: 600, Per: time.Minute}},
	}}}
	_, got := scheduleSettings(cfg)
	want := schedule.Limits{SiteConnections: 7, Destinations: []schedule.Destination{
		{Name: "big", Hosts: []string{"*.big.test"}, Connections: 3, Count: 600, Per: time.Minute},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}
