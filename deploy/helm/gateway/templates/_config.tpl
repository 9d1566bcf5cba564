{{/* gateway.yaml: the value config, and what the chart knows better. */}}
{{- define "gateway.config" -}}
{{- include "gateway.validate" . }}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "listen" ":8402" }}
{{- $_ := set $config "admin" (dict "listen" (printf ":%d" (int .Values.admin.port))) }}
{{- $_ := set $config "drain_timeout" (printf "%ds" (int .Values.drain.drainSeconds)) }}
{{- if eq .Values.store.type "sqlite" }}
{{- $_ := set $config "store" "sqlite:/var/lib/sluice/sluice.db" }}
{{- end }}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $config "tls" (dict "cert" "/etc/sluice/tls/tls.crt" "key" "/etc/sluice/tls/tls.key") }}
{{- end }}
{{- $keys := list }}
{{- range .Values.masterKeys.keys }}
{{- $keys = append $keys (dict "id" .id "state" (default "mint" .state) "secret_file" (printf "/etc/sluice/keys/%s" .key)) }}
{{- end }}
{{- $_ := set $config "keys" $keys }}
{{- $_ := set $config.lightning "macaroon" (printf "/etc/sluice/lnd/%s" .Values.lnd.macaroonKey) }}
{{- with .Values.lnd.tlsCertKey }}
{{- $_ := set $config.lightning "tls_cert" (printf "/etc/sluice/lnd/%s" .) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Fails with all that is wrong with the values together. The schema has
checked their shape; this checks what it cannot say, or not so that one knows
what to do. */}}
{{- define "gateway.validate" -}}
{{- $v := .Values }}
{{- $wrong := list }}
{{- if not $v.image.repository }}
{{- $wrong = append $wrong "image.repository is missing: build the Dockerfile and push it to a registry of yours" }}
{{- end }}
{{- if not (or $v.image.tag $v.image.digest) }}
{{- $wrong = append $wrong "image.tag is missing (or image.digest)" }}
{{- end }}
{{- range $name, $secret := dict "masterKeys" $v.masterKeys "lnd" $v.lnd "admin" $v.admin }}
{{- if not $secret.existingSecret }}
{{- $wrong = append $wrong (printf "%s.existingSecret is missing: see docs/kubernetes.md for what is in it" $name) }}
{{- end }}
{{- end }}
{{- $minting := false }}
{{- range $v.masterKeys.keys }}
{{- if eq (default "mint" .state) "mint" }}{{ $minting = true }}{{ end }}
{{- end }}
{{- if not $minting }}
{{- $wrong = append $wrong "masterKeys.keys has none in state mint" }}
{{- end }}
{{- if eq $v.store.type "postgres" }}
{{- if not $v.store.postgres.existingSecret }}
{{- $wrong = append $wrong "store.postgres.existingSecret is missing: see docs/kubernetes.md for what is in it" }}
{{- end }}
{{- else if gt (int $v.replicas) 1 }}
{{- $wrong = append $wrong (printf "replicas is %d, but a SQLite ledger is for one gateway: set store.type to postgres" (int $v.replicas)) }}
{{- end }}
{{- $wrong = concat $wrong (include "gateway.wrongConfig" . | fromJsonArray) }}
{{- with $wrong }}
{{- fail (printf "\nthe values cannot work:\n  - %s" (join "\n  - " .)) }}
{{- end }}
{{- end }}

{{/* What is wrong with the value config, as a JSON list. */}}
{{- define "gateway.wrongConfig" -}}
{{- $v := .Values }}
{{- $wrong := list }}
{{- range $key, $instead := dict "listen" "service" "tls" "tls.existingSecret" "admin" "admin" "store" "store" "keys" "masterKeys" "drain_timeout" "drain.drainSeconds" }}
{{- if hasKey $v.config $key }}
{{- $wrong = append $wrong (printf "config.%s is written by the chart: use the value %s" $key $instead) }}
{{- end }}
{{- end }}
{{- $lightning := default dict $v.config.lightning }}
{{- range $key, $instead := dict "macaroon" "lnd.macaroonKey" "tls_cert" "lnd.tlsCertKey" }}
{{- if hasKey $lightning $key }}
{{- $wrong = append $wrong (printf "config.lightning.%s is written by the chart: use the value %s" $key $instead) }}
{{- end }}
{{- end }}
{{- if hasKey $lightning "macaroon_base64" }}
{{- $wrong = append $wrong "config.lightning.macaroon_base64 is a secret, which does not belong into a ConfigMap: use lnd.existingSecret" }}
{{- end }}
{{- if and $v.lnd.tlsCertKey (hasKey $lightning "tls_cert_base64") }}
{{- $wrong = append $wrong "config.lightning.tls_cert_base64 and lnd.tlsCertKey both give lnd's certificate: set lnd.tlsCertKey to \"\"" }}
{{- end }}
{{- if not $lightning.grpc }}
{{- $wrong = append $wrong "config.lightning.grpc is missing: lnd's gRPC listener as host:port" }}
{{- end }}
{{- if not $v.config.services }}
{{- $wrong = append $wrong "config.services is missing: what is sold, see deploy/gateway.example.yaml" }}
{{- end }}
{{- if not $v.config.backends }}
{{- $wrong = append $wrong "config.backends is missing: the inference servers, see deploy/gateway.example.yaml" }}
{{- end }}
{{- $names := list }}
{{- range $v.config.backends }}
{{- $names = append $names .name }}
{{- if or (hasKey . "api_key") (hasKey . "api_key_file") }}
{{- $wrong = append $wrong (printf "backend %s has an API key in config: use backendKeys" .name) }}
{{- end }}
{{- end }}
{{- $variables := list }}
{{- range $v.backendKeys }}
{{- if not (has .backend $names) }}
{{- $wrong = append $wrong (printf "backendKeys names %s, which is not in config.backends" .backend) }}
{{- end }}
{{- $variables = append $variables (include "gateway.backendEnv" .backend) }}
{{- end }}
{{- if ne (len $variables) (len (uniq $variables)) }}
{{- $wrong = append $wrong "two entries of backendKeys are for one backend, or for two whose names differ in punctuation only" }}
{{- end }}
{{- toJson $wrong }}
{{- end }}
