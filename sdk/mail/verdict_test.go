package mail

import "testing"

func TestVerdictCheck(t *testing.T) {
	good := []Verdict{
		Continue(), Accept(AddHeader{Name: "X"}), Discard("spam"), Quarantine("virus", SetMeta{"a", "b"}),
		Reject(550, "5.7.1", "go %s", "away"), Reject(554, "", "no"), TempFail(451, "4.7.1", "later"),
		{Action: ActionDisconnect, Reply: NewReply(421, "4.7.0", "bye")},
	}
	for _, v := range good {
		if err := v.Check(); err != nil {
			t.Errorf("%+v: %v", v, err)
		}
	}
	bad := []Verdict{
		{}, {Action: 99}, {Action: ActionReject}, {Action: ActionTempFail}, {Action: ActionDisconnect},
		Reject(450, "", "x"), Reject(250, "", "x"), Reject(550, "4.7.1", "x"), Reject(550, "5.7", "x"), Reject(550, "nonsense", "x"), Reject(550, "", "a\r\nb"),
		TempFail(550, "", "x"), TempFail(451, "5.0.0", "x"), {Action: ActionDisconnect, Reply: NewReply(554, "", "x")},
		Continue(nil), Accept(SetMeta{}), Quarantine("", AddHeader{}),
		{Action: ActionReject, Reply: NewReply(550, "", "x"), Edits: []Edit{nil}},
	}
	for _, v := range bad {
		if v.Check() == nil {
			t.Errorf("%+v was taken", v)
		}
	}
	if r := Reject(550, "5.7.1", "go %s", "away").Reply; r != NewReply(550, "5.7.1", "go away") {
		t.Errorf("%v", r)
	}
}

func TestActionString(t *testing.T) {
	for a, want := range map[Action]string{ActionUnspecified: "unspecified", ActionContinue: "continue", ActionDisconnect: "disconnect", 99: "action(99)"} {
		if a.String() != want {
			t.Errorf("%s, want %s", a, want)
		}
	}
}
