{{/* Secrets that the gateway takes from its environment. */}}
{{- define "gateway.env" -}}
env:
  - name: SLUICE_ADMIN_TOKEN
    valueFrom:
      secretKeyRef:
        name: {{ .Values.admin.existingSecret | quote }}
        key: {{ .Values.admin.tokenKey | quote }}
  {{- if eq .Values.store.type "postgres" }}
  - name: SLUICE_STORE
    valueFrom:
      secretKeyRef:
        name: {{ .Values.store.postgres.existingSecret | quote }}
        key: {{ .Values.store.postgres.urlKey | quote }}
  {{- with .Values.store.postgres.caKey }}
  - name: PGSSLROOTCERT
    value: /etc/sluice/postgres/{{ . }}
  {{- end }}
  {{- end }}
  {{- range .Values.backendKeys }}
  - name: {{ include "gateway.backendEnv" .backend }}
    valueFrom:
      secretKeyRef:
        name: {{ .existingSecret | quote }}
        key: {{ .key | quote }}
  {{- end }}
{{- end }}

{{- define "gateway.mounts" -}}
- name: config
  mountPath: /etc/sluice/config
  readOnly: true
- name: keys
  mountPath: /etc/sluice/keys
  readOnly: true
- name: lnd
  mountPath: /etc/sluice/lnd
  readOnly: true
{{- if .Values.tls.existingSecret }}
- name: tls
  mountPath: /etc/sluice/tls
  readOnly: true
{{- end }}
{{- if eq .Values.store.type "sqlite" }}
- name: ledger
  mountPath: /var/lib/sluice
- name: tmp # SQLite's temporary files; nothing else is written
  mountPath: /tmp
{{- else if .Values.store.postgres.caKey }}
- name: postgres
  mountPath: /etc/sluice/postgres
  readOnly: true
{{- end }}
{{- end }}

{{/* Only the keys that are used, so that a missing one keeps the pod from starting. */}}
{{- define "gateway.volumes" -}}
- name: config
  configMap:
    name: {{ include "gateway.fullname" . }}
- name: keys
  secret:
    secretName: {{ .Values.masterKeys.existingSecret | quote }}
    defaultMode: 0440
    items:
      {{- range .Values.masterKeys.keys }}
      - {key: {{ .key | quote }}, path: {{ .key | quote }}}
      {{- end }}
- name: lnd
  secret:
    secretName: {{ .Values.lnd.existingSecret | quote }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.lnd.macaroonKey | quote }}, path: {{ .Values.lnd.macaroonKey | quote }}}
      {{- with .Values.lnd.tlsCertKey }}
      - {key: {{ . | quote }}, path: {{ . | quote }}}
      {{- end }}
{{- if .Values.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ .Values.tls.existingSecret | quote }}
    defaultMode: 0440
    items:
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
{{- end }}
{{- if eq .Values.store.type "sqlite" }}
- name: ledger
  persistentVolumeClaim:
    claimName: {{ include "gateway.claim" . | quote }}
- name: tmp
  emptyDir: {}
{{- else if .Values.store.postgres.caKey }}
- name: postgres
  secret:
    secretName: {{ .Values.store.postgres.existingSecret | quote }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.store.postgres.caKey | quote }}, path: {{ .Values.store.postgres.caKey | quote }}}
{{- end }}
{{- end }}
