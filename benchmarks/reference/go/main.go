// The limit to aim at: the smallest honest server that does what a webhook ingress must do, and no more.
//
// POST -> HMAC check -> events -> one Kafka record each, keyed by conversation -> 200 when all are acknowledged. Its record
// has 8 fields and no headers; it has no event_id, no raw, no limits, no metrics and no failure story. So it stands for the
// cost of HTTP, JSON and Kafka in a compiled language, not for the same work. Started and stopped by benchmarks/servers.py.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// bodyBytesMax is the bridge's own limit (BRIDGE_BODY_BYTES_MAX).
const bodyBytesMax = 16 << 20

type party struct {
	ID string `json:"id"`
}

type notification struct {
	Entry []struct {
		ID        string `json:"id"`
		Messaging []struct {
			Sender    party `json:"sender"`
			Recipient party `json:"recipient"`
			Timestamp int64 `json:"timestamp"`
			Message   struct {
				Mid  string `json:"mid"`
				Text string `json:"text"`
			} `json:"message"`
		} `json:"messaging"`
	} `json:"entry"`
}

type ingress struct {
	secret []byte
	client *kgo.Client
}

func (in *ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	if err != nil {
		http.Error(w, "body", http.StatusRequestEntityTooLarge)
		return
	}
	if !authentic(body, r.Header.Get("X-Hub-Signature-256"), in.secret) {
		http.Error(w, "signature", http.StatusUnauthorized)
		return
	}
	var n notification
	if err := json.Unmarshal(body, &n); err != nil {
		http.Error(w, "json", http.StatusBadRequest)
		return
	}
	if err := in.client.ProduceSync(r.Context(), records(&n)...).FirstErr(); err != nil {
		http.Error(w, "kafka", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func authentic(body []byte, header string, secret []byte) bool {
	claimed, err := hex.DecodeString(strings.TrimPrefix(header, "sha256="))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return hmac.Equal(mac.Sum(nil), claimed)
}

// records makes one record of every event; the client's default partitioner is Kafka's murmur2 over the key.
func records(n *notification) []*kgo.Record {
	var out []*kgo.Record
	now := time.Now()
	for e := range n.Entry {
		entry := &n.Entry[e]
		for m := range entry.Messaging {
			item := &entry.Messaging[m]
			customer := item.Sender.ID
			if customer == entry.ID {
				customer = item.Recipient.ID
			}
			value := make([]byte, 0, 512)
			for _, text := range [...]string{
				item.Message.Mid, entry.ID, customer, item.Sender.ID, item.Recipient.ID, item.Message.Text,
			} {
				value = append(binary.AppendVarint(value, int64(len(text))), text...)
			}
			// Go's varint is Avro's: zigzag, then seven bits a byte.
			value = binary.AppendVarint(value, item.Timestamp)
			value = binary.AppendVarint(value, now.UnixMilli())
			key := append(append(append(make([]byte, 0, 64), entry.ID...), ':'), customer...)
			out = append(out, &kgo.Record{Key: key, Value: value, Timestamp: now})
		}
	}
	return out
}

func main() {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("REFERENCE_BOOTSTRAP_SERVERS")),
		kgo.DefaultProduceTopic(os.Getenv("REFERENCE_TOPIC")),
		kgo.RequiredAcks(kgo.AllISRAcks()),                // idempotence is the client's default
		kgo.ProducerBatchCompression(kgo.NoCompression()), // as the bridge
		kgo.ProducerLinger(0),                             // batching follows from load, as in the bridge
	)
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Ping(context.Background()); err != nil {
		log.Fatal(err)
	}
	in := &ingress{secret: []byte(os.Getenv("REFERENCE_SECRET")), client: client}
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%s", os.Getenv("REFERENCE_PORT")), in))
}
