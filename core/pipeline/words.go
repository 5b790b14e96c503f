package pipeline

import (
	"fmt"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// maxWords bounds how many edits of a verdict are told one by one.
const maxWords = 20

// Words tells edits in a line for the operator: what was changed, and not the content of bodies and values.
func Words(edits []mail.Edit) string {
	if len(edits) == 0 {
		return ""
	}
	words := make([]string, 0, min(len(edits), maxWords)+1)
	for i, e := range edits {
		if i == maxWords {
			words = append(words, fmt.Sprintf("and %d more", len(edits)-i))
			break
		}
		words = append(words, wordsOf(e))
	}
	return strings.Join(words, ", ")
}

func wordsOf(e mail.Edit) string {
	switch e := e.(type) {
	case mail.AddHeader:
		return "add " + cleanReason(e.Name)
	case mail.ReplaceHeader:
		return fmt.Sprintf("replace field %d", e.ID)
	case mail.RemoveHeader:
		return fmt.Sprintf("remove field %d", e.ID)
	case mail.SetSender:
		return fmt.Sprintf("sender <%s>", e.Address)
	case mail.AddRecipient:
		return fmt.Sprintf("add recipient <%s>", e.Recipient.Address)
	case mail.DropRecipient:
		return fmt.Sprintf("drop recipient <%s>", e.Address)
	case mail.RewriteRecipient:
		return fmt.Sprintf("recipient <%s> becomes <%s>", e.Old, e.New)
	case mail.ReplaceBody:
		return fmt.Sprintf("body of %d bytes", len(e.Body))
	case mail.SetMeta:
		return fmt.Sprintf("%s = %.80q", cleanReason(e.Key), e.Value)
	default:
		return fmt.Sprintf("%T", e)
	}
}
